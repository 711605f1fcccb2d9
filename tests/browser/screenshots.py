"""Pictures of the dashboards: URL of the listener, minutes to show, folder."""

import os
import sys

from PIL import Image

from chromium import Chromium, Failed

BASE, MINUTES, FOLDER = sys.argv[1:4]
# Name and theme; the height is that of the page.
PICTURES = [
    ("health", False), ("pipeline", False), ("exchange", True), ("trading", False), ("alerts", False),
    ("system", True),
]
WIDTH = 1280
ANSWERED = """[...document.querySelectorAll('.panel')].length > 3
    && document.querySelectorAll('.loading').length === 0
    && [...document.querySelectorAll('.panel')].every((one) => one.classList.contains('failed')
        || one.querySelector('canvas, .tile, .bar-row, table, .no-value'))"""


def picture(name, dark):
    path = os.path.join(FOLDER, f"{name}.png")
    with Chromium(width=WIDTH, height=2600, dark=dark) as page:
        page.open(f"{BASE}/d/periscope-{name}?from=now-{MINUTES}m&to=now&refresh=")
        page.wait(f"all panels of {name}", ANSWERED)
        if failed := page.run("[...document.querySelectorAll('.failed')].map((one) => one.innerText)"):
            raise Failed(f"{name}: {failed}")
        height = page.run("document.querySelector('main').getBoundingClientRect().bottom")
        page.resize(WIDTH, int(height) + 8)
        page.wait("the same panels", ANSWERED)
        page.screenshot(path)
    # A palette is a third of the size, and nobody sees it on flat colours.
    with Image.open(path) as image:
        image.convert("RGB").quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {os.path.getsize(path) / 1000:.0f} kB")


for name, dark in PICTURES:
    picture(name, dark)
