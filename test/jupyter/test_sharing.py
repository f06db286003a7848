"""What people do with a notebook besides opening it: parameters, conversions, consoles, other kernels' notebooks."""

import datetime
import json
import math
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import nbformat
import pexpect

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KERNEL = "tunebook"
CLI = ["node", str(ROOT / "dist" / "kernel" / "cli.js")]


def command(*words, cwd=None, env=None, timeout=180):
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode != 0:
        raise AssertionError(f"{words} ended with code {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr


def python(*words, **options):
    return command(sys.executable, "-m", *words, **options)


def notebook(*cells, parameters=None, kernel=KERNEL):
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "typescript"}
    book.metadata["language_info"] = {"name": "typescript"}
    book.cells = [nbformat.v4.new_code_cell(code) for code in cells]
    if parameters is not None:
        book.cells[parameters].metadata["tags"] = ["parameters"]
    return book


class InFolder(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)

    def write(self, book, name="in.ipynb"):
        nbformat.write(book, self.folder / name)
        return self.folder / name

    def outputs(self, name="out.ipynb"):
        book = nbformat.read(self.folder / name, as_version=4)
        nbformat.validate(book)
        return [cell.outputs for cell in book.cells if cell.cell_type == "code"]


TYPES = 'let name: string = "nobody"; // who\nlet count = 1;\nlet flag = false, rate: number = 0.5;\nlet list: number[] = [];'
REPORT = "JSON.stringify([name, count, flag, rate, list])"


class Papermill(InFolder):
    def papermill(self, *words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "papermill", "--no-progress-bar", *map(str, words)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=180,
        )
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout + done.stderr

    def test_values_keep_their_types(self):
        self.write(notebook(TYPES, REPORT, parameters=0))
        (self.folder / "p.yaml").write_text("list: [1, 2]\nname: overridden\n")
        self.papermill("in.ipynb", "out.ipynb", "-f", "p.yaml", "-p", "name", 'A"d\\a', "-p", "count", 6, "-p", "flag", "True")
        book = nbformat.read(self.folder / "out.ipynb", as_version=4)
        self.assertEqual(book.cells[1].metadata.tags, ["injected-parameters"])
        self.assertEqual(book.cells[1].outputs, [])
        shown = book.cells[2].outputs[0].data["text/plain"]
        self.assertEqual(json.loads(shown[1:-1].replace("\\\\", "\\")), ['A"d\\a', 6, True, 0.5, [1, 2]])

    def test_help_lists_the_parameters(self):
        self.write(notebook(TYPES, parameters=0))
        text = self.papermill("--help-notebook", "in.ipynb")
        for part in ["name: string", '"nobody"', "who", "count: Unknown type", "list: number[]"]:
            self.assertIn(part, text)

    def test_a_notebook_of_another_kernel_by_the_engine(self):
        self.write(notebook("let who = 1;", "`${who + 1} by ${process.version}`", parameters=0, kernel="tslab"))
        self.papermill("in.ipynb", "out.ipynb", "--engine", "tunebook", "-p", "who", 41)
        self.assertIn("42 by v", self.outputs()[-1][0].data["text/plain"])

    def test_the_kernel_reads_what_the_translator_writes(self):
        from papermill.translators import translate_parameters

        values = {
            "text": 'quote " back \\ line \n é \u2028 ${x} `',
            "big": 2**60,
            "small": -1e-7,
            "odd": {"__proto__": 1, "a b": [None, True]},
            "day": datetime.date(2026, 3, 1),
            "infinite": -math.inf,
            "nan": math.nan,
        }
        code = translate_parameters(KERNEL, "typescript", values, "Parameters")
        self.write(
            notebook(
                code,
                "const found = { text, big: `${big} ${typeof big}`, small, odd: Object.entries(odd), day: day.toISOString(), ends: `${infinite} ${nan}` };\n"
                'display({ "application/json": found, "text/plain": "found" });',
            )
        )
        self.papermill("in.ipynb", "out.ipynb")
        found = self.outputs()[1][0].data["application/json"]
        self.assertEqual(found["text"], values["text"])
        self.assertEqual(found["big"], f"{2**60} bigint")
        self.assertEqual(found["small"], -1e-7)
        self.assertEqual(found["odd"], [["__proto__", 1], ["a b", [None, True]]])
        self.assertEqual(found["day"], "2026-03-01T00:00:00.000Z")
        self.assertEqual(found["ends"], "-Infinity NaN")
        with self.assertRaises(ValueError):
            translate_parameters(KERNEL, "typescript", {"a b": 1})


class Convert(InFolder):
    """nbconvert on the project's own notebooks, as they are committed."""

    BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

    def convert(self, book, to):
        python("jupyter", "nbconvert", "--to", to, "--output-dir", self.folder, book)

    def test_script(self):
        self.assertGreaterEqual(len(self.BOOKS), 2)
        for book in self.BOOKS:
            self.convert(book, "script")
            script = (self.folder / f"{book.stem}.ts").read_text()
            for cell in nbformat.read(book, as_version=4).cells:
                if cell.cell_type == "code":
                    self.assertIn(cell.source, script)

    def test_html(self):
        for book in self.BOOKS:
            self.convert(book, "html")
            page = (self.folder / f"{book.stem}.html").read_text()
            self.assertIn('<img alt="No description has been provided for this image"', page)
            self.assertIn("data:image/png;base64,", page)
            self.assertIn("<table", page)
            # Highlighted as TypeScript: keywords stand in spans of their own.
            self.assertRegex(page, r'<span class="kd">const</span>')

    def test_markdown(self):
        for book in self.BOOKS:
            self.convert(book, "markdown")
            text = (self.folder / f"{book.stem}.md").read_text()
            self.assertIn("```typescript\n", text)
            pictures = list((self.folder / f"{book.stem}_files").glob("*.png"))
            self.assertTrue(pictures)
            for picture in pictures:
                self.assertEqual(picture.read_bytes()[:4], b"\x89PNG")

    def test_execute(self):
        self.write(notebook("const a: number = 6;", "console.log(a); display({ 'text/html': '<b>x</b>' }); a * 7"))
        python("jupyter", "nbconvert", "--to", "notebook", "--execute", "in.ipynb", "--output", "out.ipynb", cwd=self.folder)
        stream, shown, result = self.outputs()[1]
        self.assertEqual(stream.text, "6\n")
        self.assertEqual(shown.data["text/html"], "<b>x</b>")
        self.assertEqual(result.data["text/plain"], "42")

    def test_execute_stops_at_an_error(self):
        self.write(notebook("1", "throw new RangeError('no further')", "3"))
        with self.assertRaises(AssertionError) as caught:
            python("jupyter", "nbconvert", "--to", "notebook", "--execute", "in.ipynb", "--output", "out.ipynb", cwd=self.folder)
        self.assertIn("RangeError: no further", str(caught.exception))


class Console(unittest.TestCase):
    """jupyter_console in a terminal."""

    def console(self, *flags):
        words = ["-m", "jupyter_console", "--kernel", KERNEL, *flags]
        env = {**os.environ, "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
        child = pexpect.spawn(sys.executable, words, encoding="utf-8", timeout=60, env=env, dimensions=(40, 120))
        self.addCleanup(child.close, force=True)
        child.expect(r"tunebook [\d.]+: TypeScript")
        return child

    def test_a_session(self):
        child = self.console("--simple-prompt")
        for code, answer in [
            ("const a: number = 41;", r"In \[2\]"),
            ("a + 1", r"Out\[2\]: 42"),
            ("console.log(await Promise.resolve('hello'))", r"\r\nhello\r\n"),
            ("throw new RangeError('bad')", "RangeError: bad"),
            ('const b: number = "x"', "TypeCheckError: Type 'string' is not assignable"),
            ("const who = await input('your name: ')", "your name: "),
            ("Ada", r"In \[7\]"),
            ("`hello ${who}`", r"'hello Ada'"),
        ]:
            child.sendline(code)
            child.expect(answer)
        child.expect(r"In \[8\]: ")
        child.sendline("console.log('begun'); while (true) {}")
        child.expect(r"\r\nbegun")
        child.sendintr()
        child.expect("InterruptedError: The cell was interrupted")
        child.sendline("a * 2")
        child.expect(r"Out\[9\]: 82")
        child.sendeof()
        child.expect("exit")
        child.sendline("y")
        child.expect(pexpect.EOF)

    def test_lines_that_go_on(self):
        child = self.console()
        child.expect(r"In \[.*1.*\]")
        child.send("for (const i of [7, 8]) {\r")
        child.expect(r"\.\.\.")
        child.send("console.log(`line ${i}`); }\r")
        child.expect("line 7")
        child.expect("line 8")


class OtherKernels(InFolder):
    """Notebooks written for tslab, unchanged."""

    def run_unchanged(self, name):
        command(*CLI, "run", HERE / name, "-o", self.folder / "out.ipynb")
        before = nbformat.read(HERE / name, as_version=4)
        after = nbformat.read(self.folder / "out.ipynb", as_version=4)
        self.assertEqual([cell.source for cell in before.cells], [cell.source for cell in after.cells])
        self.assertEqual(before.metadata.kernelspec, after.metadata.kernelspec)
        return self.outputs()

    def test_typescript(self):
        _, html, kinds, progress, pictures, streams, result = self.run_unchanged("tslab-typescript.ipynb")
        self.assertIn("<td>Wrenmouth</td>", html[0].data["text/html"])
        self.assertLessEqual({"image/svg+xml", "text/markdown", "text/latex", "text/plain"}, {k for o in kinds for k in o.data})
        self.assertEqual([o.data["text/plain"] for o in progress], ["3 of 3"])
        self.assertTrue(pictures[0].data["image/png"].startswith("iVBOR"))
        self.assertEqual(pictures[1].data["application/json"], {"boats": 17})
        self.assertIn("text/javascript", pictures[2].data)
        self.assertEqual(streams[0].text, "17 true\n")
        self.assertEqual(result[0].data["text/plain"], "17")

    def test_javascript(self):
        _, html, result = self.run_unchanged("tslab-javascript.ipynb")
        self.assertEqual(html[0].data["text/html"], "<b>12</b>")
        self.assertEqual(html[1].text, "a/b\n")
        self.assertEqual(result[0].data["text/plain"], "'is 42'")

    def test_javascript_in_a_front_end(self):
        command(*CLI, "install", "--prefix", self.folder, "--name", "jslab")
        env = {"JUPYTER_PATH": str(self.folder / "share" / "jupyter")}
        name = HERE / "tslab-javascript.ipynb"
        python("jupyter", "nbconvert", "--to", "notebook", "--execute", name, "--output-dir", self.folder, "--output", "out.ipynb", env=env)
        self.assertEqual(self.outputs()[-1][0].data["text/plain"], "'is 42'")

    def test_in_a_front_end_under_tslabs_name(self):
        command(*CLI, "install", "--prefix", self.folder, "--name", "tslab", "--display-name", "TypeScript by tunebook")
        env = {"JUPYTER_PATH": str(self.folder / "share" / "jupyter")}
        listed = command(sys.executable, "-m", "jupyter", "kernelspec", "list", env=env)
        self.assertRegex(listed, r"tslab\s")
        name = HERE / "tslab-typescript.ipynb"
        python("jupyter", "nbconvert", "--to", "notebook", "--execute", name, "--output-dir", self.folder, "--output", "out.ipynb", env=env)
        self.assertEqual(self.outputs()[-1][0].data["text/plain"], "17")
        command(*CLI, "uninstall", "--prefix", self.folder, "--name", "tslab")
        self.assertNotIn("tslab", command(sys.executable, "-m", "jupyter", "kernelspec", "list", env=env))


class Elsewhere(InFolder):
    def test_any_folder_finds_the_library(self):
        self.write(notebook('import { table } from "tunebook";\ntable(["a"], [[1]])'))
        python("jupyter", "nbconvert", "--to", "notebook", "--execute", "in.ipynb", "--output", "out.ipynb", cwd=self.folder)
        self.assertIn("<table", self.outputs()[0][0].data["text/html"])

    def test_doctor_names_the_kernelspec(self):
        # The table also looks for a GPU, which need not be there: only the line of the kernelspec counts.
        prefix = Path(sys.prefix)
        done = subprocess.run([*CLI, "doctor"], capture_output=True, text=True, env={**os.environ, "VIRTUAL_ENV": str(prefix)})
        self.assertRegex(done.stdout, rf'Kernelspec +ok +.*"TypeScript \(tunebook\)" in {prefix}')


del InFolder
