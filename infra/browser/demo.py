"""Takes the screenshot of `cargo run -- demo`: its output in a window."""

import html
import subprocess

from processes import Failure

TIMEOUT_S = 120
WINDOW = """<!doctype html>
<style>
  body { margin: 0; padding: 24px 28px; background: #16181d; color: #d6dae0; font: 14px/1.45 "DejaVu Sans Mono", monospace; }
  main { columns: 2; column-gap: 40px; }
  pre { font: inherit; margin: 0 0 1.45em; break-inside: avoid; white-space: pre-wrap; }
  b { color: #7ee787; }
</style>
<pre>$ <b>cargo run -- demo</b></pre>
<main>%s</main>
"""


def demo(browser, binary):
    """Runs the demo, which must succeed, and takes its screenshot."""
    ended = subprocess.run([binary, "demo"], capture_output=True, text=True, timeout=TIMEOUT_S)
    if ended.returncode != 0:
        raise Failure(f"the demo failed with exit status {ended.returncode}: {ended.stderr or ended.stdout}")
    parts = html.escape(ended.stdout.strip()).split("\n\n")
    browser.picture_of(WINDOW % "".join(f"<pre>{part}</pre>" for part in parts), "demo")
