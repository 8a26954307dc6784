"""Headless Chromium for the tests of pages. It is started here and attached to, as chromedriver would give up a slow start after a minute."""
import contextlib
import os
import shutil
import subprocess
import tempfile
import time

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service


@contextlib.contextmanager
def open_browser(width, height):
    """A driver whose window is `width` x `height` pixels."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"), ignore_cleanup_errors=True) as profile:
        chromium = subprocess.Popen([shutil.which("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                                     "--proxy-server=direct://", f"--window-size={width},{height}", "--user-data-dir=" + profile,
                                     "--remote-debugging-port=0", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            options = Options()
            options.debugger_address = f"127.0.0.1:{port_of(chromium, os.path.join(profile, 'DevToolsActivePort'))}"
            options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
            driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
            try:
                driver.set_window_size(width, height)
                yield driver
            finally:
                driver.quit()
        finally:
            chromium.terminate()
            chromium.wait()


def port_of(chromium, path):
    """Where it listens: it writes that down, the port on the first line, once it does."""
    while chromium.poll() is None:
        with contextlib.suppress(OSError):
            with open(path, encoding="utf-8") as file:
                lines = file.read().split("\n")
            if len(lines) > 1 and lines[0].isdigit():
                return int(lines[0])
        time.sleep(0.05)  # it tells in no other way
    raise RuntimeError(f"chromium ended with {chromium.returncode} before it listened")
