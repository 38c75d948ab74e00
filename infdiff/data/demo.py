"""The embedded demo set: 126 faces of the Fluent Emoji at 128 pixels (MIT, see demo_faces/LICENSE.txt)."""

from pathlib import Path

DEMO_PATH = Path(__file__).parent / "demo_faces" / "faces_128.lmdb"
