"""The page of `mmm demo`: speech, text and earlier turns in, probabilities out. On this machine
alone.
"""

import contextlib
import html
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi.middleware import Middleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware

from mmm.predict.predictor import Predictor, Turn

# Gradio reads these when it is imported: it counts its users otherwise.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_HOSTS = ["127.0.0.1", "localhost"]
_MAX_UPLOAD = "50mb"
_TITLE = "Emotion of an utterance"


def _refusal(text: str) -> gr.Error:
    return gr.Error(html.escape(text, quote=False), title="Not yet", print_exception=False)


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it is: a name from somebody's bundle must not fetch a picture."""
    return re.sub(r"([^\w\s])", r"\\\1", " ".join(text.split()))


def build(predictor: Predictor) -> Any:
    """The page, a `gradio.Blocks`."""
    bundle, context = predictor.bundle, predictor.context
    about = (
        f"**{as_markdown(bundle.name)}**: {', '.join(predictor.labels)}. It looks at {context - 1}"
        f" earlier {'turn' if context == 2 else 'turns'}. Nothing leaves this machine."
    )

    def answer(clip: str | None, text: str, earlier: list[Turn]) -> dict[str, float]:
        if not clip:
            raise _refusal("Record or upload the utterance first.")
        try:
            return predictor.predict(Path(clip), text, earlier)
        except (ValueError, FileNotFoundError) as error:
            raise _refusal(
                f"This recording cannot be used: {str(error).replace(clip, 'it')}"
            ) from None

    def keep(
        clip: str | None, text: str, earlier: list[Turn]
    ) -> tuple[list[Turn], list[list[str]], None, str]:
        if not text.strip() and not clip:
            raise _refusal("An earlier turn needs a text or speech.")
        try:
            heard = predictor.hear(Path(clip)) if clip else None
        except (ValueError, FileNotFoundError) as error:
            raise _refusal(
                f"This recording cannot be used: {str(error).replace(clip or '', 'it')}"
            ) from None
        found = [*earlier, (heard, text.strip())]
        return found, rows(found), None, ""

    def rows(earlier: list[Turn]) -> list[list[str]]:
        used = len(earlier) - (context - 1)
        return [
            [text, "yes" if audio is not None else "no", "yes" if place >= used else "no"]
            for place, (audio, text) in enumerate(earlier)
        ]

    with gr.Blocks(title=_TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {_TITLE}\n{about}")
        earlier = gr.State([])
        with gr.Row():
            with gr.Column():
                clip = gr.Audio(
                    sources=["upload", "microphone"], type="filepath", label="Speech", buttons=[]
                )
                text = gr.Textbox(label="Text", placeholder="What was said", lines=2)
                with gr.Row():
                    ask = gr.Button("Predict", variant="primary")
                    push = gr.Button("Keep as earlier turn")
            found = gr.Label(
                label="Probabilities", num_top_classes=len(predictor.labels), show_heading=True
            )
        table = gr.Dataframe(
            headers=["earlier turn, oldest first", "speech", "used"],
            column_widths=["70%", "15%", "15%"],
            interactive=False,
            label="Earlier turns",
            wrap=True,
            buttons=[],
        )
        clear = gr.Button("Start a new dialogue", size="sm")
        ask.click(answer, [clip, text, earlier], found, api_name="predict")
        text.submit(answer, [clip, text, earlier], found, api_visibility="private")
        push.click(
            keep, [clip, text, earlier], [earlier, table, clip, text], api_visibility="private"
        )
        clear.click(
            lambda: ([], [], None, "", None),
            None,
            [earlier, table, clip, text, found],
            api_visibility="private",
        )
    return page


@contextlib.contextmanager
def opened(predictor: Predictor, port: int) -> Iterator[Any]:
    """The page on 127.0.0.1 for the time of a `with` block; recordings are removed at its end.

    Requests that name another host are refused, so that a page elsewhere cannot ask in a browser's
    name. Raises ValueError where the port is taken.
    """
    # The default theme fetches fonts from the web.
    theme = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    with tempfile.TemporaryDirectory(prefix="mmm-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(predictor)
        try:
            page.launch(
                server_name="127.0.0.1",
                server_port=port,
                share=False,
                inbrowser=False,
                quiet=True,
                show_error=True,
                enable_monitoring=False,
                max_file_size=_MAX_UPLOAD,
                theme=theme,
                ssr_mode=False,
                footer_links=[],
                app_kwargs={
                    "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)]
                },
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise ValueError(
                f"port {port} cannot be used ({str(error).splitlines()[0]}); choose another with"
                " --port"
            ) from None
        try:
            yield page
        finally:
            page.close(verbose=False)


def serve(predictor: Predictor, port: int) -> None:
    """Show the page until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with opened(predictor, port), contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
