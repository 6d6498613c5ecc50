"""The page of `mmm demo`: speech, text and earlier turns in, probabilities out. On this machine
alone.
"""

import contextlib
import html
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmm.manifest import with_speaker
from mmm.markdown import as_markdown
from mmm.predict.predictor import Audio, Predictor, Speech

_HOSTS = ["127.0.0.1", "localhost"]
_MAX_UPLOAD = "50mb"
_TITLE = "Emotion of an utterance"

Turn = tuple[Audio | None, str, str]


def _gradio() -> Any:
    """Gradio, which counts its users unless it is told not to, some of it before it is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import gradio

    return gradio


def _refusal(text: str) -> Exception:
    error: Exception = _gradio().Error(
        html.escape(text, quote=False), title="Not yet", print_exception=False
    )
    return error


def build(predictor: Predictor) -> Any:
    """The page, a `gradio.Blocks`."""
    gr = _gradio()
    bundle, context = predictor.bundle, predictor.context
    labels = ", ".join(map(as_markdown, predictor.labels))
    about = (
        f"**{as_markdown(bundle.name)}**: {labels}. It looks at {context - 1}"
        f" earlier {'turn' if context == 2 else 'turns'}. Nothing leaves this machine."
    )

    def hear(clip: str) -> Speech:
        try:
            return predictor.hear(Path(clip))
        except (ValueError, FileNotFoundError) as error:
            what = str(error).replace(clip, "it")
            raise _refusal(f"This recording cannot be used: {what}") from None

    def answer(clip: str | None, text: str, speaker: str, earlier: list[Turn]) -> dict[str, float]:
        if not clip:
            raise _refusal("Record or upload the utterance first.")
        return predictor.predict(hear(clip), text, earlier, speaker=speaker.strip())

    def keep(
        clip: str | None, text: str, speaker: str, earlier: list[Turn]
    ) -> tuple[list[Turn], list[list[str]], None, str]:
        if not text.strip() and not clip:
            raise _refusal("An earlier turn needs a text or speech.")
        turns = [*earlier, (hear(clip) if clip else None, text.strip(), speaker.strip())]
        return turns, rows(turns), None, ""

    def rows(earlier: list[Turn]) -> list[list[str]]:
        used = len(earlier) - (context - 1)
        return [
            [
                with_speaker(speaker, text),
                "yes" if audio is not None else "no",
                "yes" if place >= used else "no",
            ]
            for place, (audio, text, speaker) in enumerate(earlier)
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
                speaker = gr.Textbox(
                    value="",
                    label="Speaker",
                    placeholder="Who speaks; empty where nobody knows",
                    visible=predictor.with_speakers,
                )
                with gr.Row():
                    ask = gr.Button("Predict", variant="primary")
                    push = gr.Button("Keep as earlier turn")
            shares = gr.Label(
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
        turn = [clip, text, speaker, earlier]
        ask.click(answer, turn, shares, api_name="predict")
        text.submit(answer, turn, shares, api_visibility="private")
        push.click(keep, turn, [earlier, table, clip, text], api_visibility="private")
        clear.click(
            lambda: ([], [], None, "", None),
            None,
            [earlier, table, clip, text, shares],
            api_visibility="private",
        )
    return page


@contextlib.contextmanager
def opened(predictor: Predictor, port: int) -> Iterator[Any]:
    """The page on 127.0.0.1 for the time of a `with` block; recordings are removed at its end.

    Requests that name another host are refused, so that a page elsewhere cannot ask in a browser's
    name. Raises ValueError where the port is taken.
    """
    from fastapi.middleware import Middleware
    from fastapi.middleware.trustedhost import TrustedHostMiddleware

    # The default theme fetches fonts from the web.
    theme = _gradio().themes.Default(
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
