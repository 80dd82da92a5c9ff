"""``python -m authsvc.brokerconfig FOLDER`` writes the files of ``config/`` anew from the templates."""

from __future__ import annotations

import sys
from pathlib import Path

from authsvc.brokerconfig.rendering import default_files


def main(folder: Path) -> None:
    """Write every default file into `folder`."""
    for name, text in default_files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
