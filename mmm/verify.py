"""A bundle's metrics on the validation split, as a process that knows nothing else computes them.

    python -m mmm.verify BUNDLE manifest.csv FEATURES

prints them as JSON. Exports start it, so that what ships was loaded by another process than the one
that made it.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from mmm.bundle import BundleError, load_bundle_or_ensemble
from mmm.manifest import read_manifest
from mmm.predict import evaluate_bundle


def in_fresh_process(bundle: Path, manifest: Path, features: Path) -> dict[str, Any]:
    """Metrics of a bundle, loaded and evaluated by a new Python. Raises BundleError with what that
    one said.
    """
    command = [sys.executable, "-m", "mmm.verify", str(bundle), str(manifest), str(features)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BundleError(
            f"{bundle}: cannot be loaded and evaluated in a fresh process:"
            f" {done.stderr.strip()[-1000:]}"
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    bundle, manifest, features = map(Path, sys.argv[1:])
    try:
        checked = read_manifest(manifest, check_audio=False)
        found = load_bundle_or_ensemble(bundle)
        print(
            json.dumps(
                evaluate_bundle(found, checked, features, checked.rows("dev"), torch.device("cpu"))
            )
        )
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
