"""Whole notebooks through nbclient."""

import tempfile
import unittest
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

KERNEL = "tunebook"
HERE = Path(__file__).resolve().parent


def notebook(*cells: str, parameters: int | None = None):
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": KERNEL, "display_name": KERNEL, "language": "typescript"}
    book.metadata["language_info"] = {"name": "typescript"}
    book.cells = [nbformat.v4.new_code_cell(code) for code in cells]
    if parameters is not None:
        book.cells[parameters].metadata["tags"] = ["parameters"]
    return book


def execute(book, **options):
    NotebookClient(book, timeout=120, kernel_name=KERNEL, **options).execute()
    nbformat.validate(book)
    return book


class Notebooks(unittest.TestCase):
    def test_results_streams_and_displays(self):
        path = HERE / "front-end.ipynb"
        book = execute(nbformat.read(path, as_version=4), resources={"metadata": {"path": str(HERE)}})
        kinds = {output.output_type for cell in book.cells if cell.cell_type == "code" for output in cell.outputs}
        self.assertLessEqual({"stream", "execute_result", "display_data"}, kinds)
        bundles = [o.data for c in book.cells if c.cell_type == "code" for o in c.outputs if "data" in o]
        self.assertTrue(any("text/html" in data for data in bundles))
        self.assertTrue(any("image/png" in data for data in bundles))
        for data in bundles:
            self.assertIn("text/plain", data)

    def test_the_library_shows_tables_and_charts(self):
        book = nbformat.read(HERE / "library.ipynb", as_version=4)
        with tempfile.TemporaryDirectory() as folder:  # any folder: the kernel brings the library along
            execute(book, resources={"metadata": {"path": folder}})
        data = [[o.data for o in c.outputs if "data" in o] for c in book.cells if c.cell_type == "code"]
        table, chart, summary = data[0][-1], data[1][-1], data[2][-1]
        self.assertIn("<table", table["text/html"])
        self.assertEqual(
            {"application/vnd.plotly.v1+json", "image/png", "text/plain"} - set(chart), set(), sorted(chart)
        )
        self.assertIsInstance(chart["application/vnd.plotly.v1+json"], dict)
        self.assertIn("q_proj", summary["text/plain"])
        self.assertIn("logits 1 x 3 x 256", "".join(o.get("text", "") for o in book.cells[-1].outputs))

    def test_an_error_stops_the_notebook(self):
        book = notebook("const a = 1;", 'throw new TypeError("stop here");', "a + 1")
        with self.assertRaises(CellExecutionError) as caught:
            execute(book)
        self.assertIn("stop here", str(caught.exception))
        self.assertEqual(book.cells[1].outputs[0].output_type, "error")
        self.assertEqual(book.cells[2].outputs, [])

    def test_no_output_of_two_hundred_cells_is_lost(self):
        count = 200
        book = execute(notebook(*[f"console.log({i});" for i in range(count)]))
        missing = [i for i in range(count) if [o.get("text") for o in book.cells[i].outputs] != [f"{i}\n"]]
        self.assertEqual(missing, [])
