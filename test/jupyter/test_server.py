"""`tunebook run --server` against a real Jupyter server."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent.parent
CLI = ["node", str(ROOT / "dist" / "kernel" / "cli.js"), "run"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.made = tempfile.TemporaryDirectory()
        cls.root = Path(cls.made.name).resolve()
        (cls.root / "below").mkdir()
        cls.here = cls.root / "here"
        cls.here.mkdir()
        cls.token, port = secrets.token_hex(16), free_port()
        cls.url = f"http://127.0.0.1:{port}/base/"
        words = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
        words += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--ServerApp.base_url=/base/"]
        cls.log = open(cls.root / "server.log", "w")
        cls.process = subprocess.Popen(
            [*words, f"--ServerApp.root_dir={cls.root}"],
            env={**os.environ, "JUPYTER_TOKEN": cls.token},
            stdout=cls.log,
            stderr=cls.log,
        )
        for _ in range(240):
            try:
                cls.api("status")
                return
            except OSError:
                time.sleep(0.25)
        raise AssertionError((cls.root / "server.log").read_text())

    @classmethod
    def tearDownClass(cls):
        cls.process.terminate()
        cls.process.wait(20)
        cls.log.close()
        cls.made.cleanup()

    @classmethod
    def api(cls, path):
        request = urllib.request.Request(f"{cls.url}api/{path}", headers={"Authorization": f"token {cls.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def write(self, *cells, **metadata):
        book = nbformat.v4.new_notebook()
        book.metadata.update(metadata)
        book.cells = [nbformat.v4.new_code_cell(code) for code in cells]
        book.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(book, self.here / "book.ipynb")

    def start(self, *flags, token=True, server=None):
        env = {**os.environ, **({"JUPYTER_TOKEN": self.token} if token else {"JUPYTER_TOKEN": ""})}
        words = [*CLI, "book.ipynb", "-o", "out.ipynb", "--server", server or self.url, *flags]
        return subprocess.Popen(words, cwd=self.here, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def finish(self, process, code=0):
        text, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, code, text)
        self.assertEqual(self.api("kernels"), [], "a kernel was left behind on the server")
        return text

    def outputs(self):
        book = nbformat.read(self.here / "out.ipynb", as_version=4)
        nbformat.validate(book)
        return [cell.outputs for cell in book.cells]

    def test_runs_there_and_writes_here(self):
        self.write(
            "let n: number = 1;",
            "for (let i = 0; i < 5000; i++) console.log(i);",
            "display({ 'text/html': '<b>0</b>' }, { id: 'd' });",
            "display({ 'text/html': '<b>1</b>', 'image/png': 'iVBORw0KGgo=' }, { id: 'd', update: true });\n`${n} in ${process.cwd()}`",
            kernelspec={"name": "tslab", "display_name": "TypeScript", "language": "typescript"},
        )
        text = self.finish(self.start("-p", "n", "3", "--server-folder", "below"))
        self.assertIn("[5/5]", text)
        _, injected, lines, shown, last = self.outputs()
        self.assertEqual("".join(o.text for o in lines), "".join(f"{i}\n" for i in range(5000)))
        self.assertEqual(shown[0].data["text/html"], "<b>1</b>")
        self.assertEqual(last[-1].data["text/plain"], f"'3 in {self.root / 'below'}'")

    def test_the_address_as_the_server_prints_it(self):
        self.write("1 + 1")
        self.finish(self.start(token=False, server=f"{self.url}lab?token={self.token}"))
        self.assertEqual(self.outputs()[0][0].data["text/plain"], "2")

    def test_a_failing_cell_ends_the_run(self):
        self.write("const a = 1;", "throw new RangeError('there')", "3")
        self.assertIn("RangeError: there", self.finish(self.start(), code=1))
        self.assertEqual(self.outputs()[1][0].ename, "RangeError")
        self.assertEqual(self.outputs()[2], [])

    def test_control_c_interrupts_the_cell(self):
        self.write("const kept = 1;", "console.log('begun'); while (true) {}", "3")
        process = self.start()
        self.assertIn("[1/3]", process.stdout.readline())
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        text = self.finish(process, code=1)
        self.assertLess(time.monotonic() - began, 20)
        self.assertIn("InterruptedError", text)
        stream, error = self.outputs()[1]
        self.assertEqual((stream.text, error.ename), ("begun\n", "InterruptedError"))

    def test_a_kernel_that_dies_is_told(self):
        self.write("process.kill(process.ppid, 'SIGKILL'); await new Promise(() => {});", "2")
        self.assertIn("KernelDied", self.finish(self.start(), code=1))

    def test_what_is_wrong_is_said(self):
        self.write("1")
        self.assertIn("refuses the token", self.finish(self.start("--token", "wrong"), code=1))
        self.assertIn('has no kernel "fortran"', self.finish(self.start("--kernel", "fortran"), code=1))
        self.assertIn("cannot be reached", self.finish(self.start(server="http://127.0.0.1:9/"), code=1))
        self.assertIn("expected an address", self.finish(self.start(server="localhost"), code=1))
        self.assertIn("written in python", self.python_notebook())

    def python_notebook(self):
        self.write("1", kernelspec={"name": "python3", "display_name": "Python", "language": "python"})
        return self.finish(self.start(), code=1)


if __name__ == "__main__":
    unittest.main()
