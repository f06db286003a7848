"""nbclient over many generated cells: every output under its own cell, none lost, none twice."""

import os
import random
import unittest

import nbformat
from nbclient import NotebookClient

KERNEL = "tunebook"
CELLS = int(os.environ.get("TUNEBOOK_GENERATED_CELLS", "500"))
SEED = int(os.environ.get("TUNEBOOK_GENERATED_SEED", "11"))


def generate(count, rng):
    """Pairs of code and the outputs expected of it, as (kind, text)."""
    for i in range(count):
        kind = rng.randrange(9)
        if kind == 0:
            lines = rng.randrange(1, 400)
            yield (
                f"for (let k = 0; k < {lines}; k++) console.log(`{i}:${{k}}`);",
                [("stdout", "".join(f"{i}:{k}\n" for k in range(lines)))],
            )
        elif kind == 1:
            yield f'console.log("out {i}"); console.error("err {i}"); {i}', [
                ("stdout", f"out {i}\n"),
                ("stderr", f"err {i}\n"),
                ("execute_result", str(i)),
            ]
        elif kind == 2:
            yield f'display({{ "text/plain": "shown {i}" }}); console.log("after {i}");', [
                ("display_data", f"shown {i}"),
                ("stdout", f"after {i}\n"),
            ]
        elif kind == 3:
            ms = rng.randrange(1, 30)
            yield f"await new Promise<void>((go) => setTimeout(() => {{ console.log('timer {i}'); go(); }}, {ms}));", [
                ("stdout", f"timer {i}\n")
            ]
        elif kind == 4:
            yield f'throw new RangeError("wrong {i}");', [("error", f"wrong {i}")]
        elif kind == 5:
            yield f"const kept{i} = {i};", []
        elif kind == 6:
            yield f'void require("node:child_process").execFileSync("echo", ["program {i}"], {{ stdio: "inherit" }});', [
                ("stdout", f"program {i}\n")
            ]
        elif kind == 7:
            # Without an await: it lands under its own cell although others run meanwhile.
            yield f"void setTimeout(() => console.log('late {i}'), {rng.randrange(5, 60)});", [("late", f"late {i}\n")]
        else:
            size = rng.randrange(1, 200_000)
            yield f'console.log("x".repeat({size}));', [("stdout", "x" * size + "\n")]


def found(output):
    if output.output_type == "stream":
        return output.name, output.text
    if output.output_type == "error":
        return "error", output.evalue
    return output.output_type, output.data["text/plain"]


class Generated(unittest.TestCase):
    def test_nothing_is_lost_or_misplaced(self):
        cases = list(generate(CELLS, random.Random(SEED)))
        book = nbformat.v4.new_notebook()
        book.metadata["kernelspec"] = {"name": KERNEL, "display_name": KERNEL, "language": "typescript"}
        last = "await new Promise((go) => setTimeout(go, 500));"  # the last late output comes before the end
        book.cells = [nbformat.v4.new_code_cell(code) for code, _ in cases] + [nbformat.v4.new_code_cell(last)]
        NotebookClient(book, timeout=120, kernel_name=KERNEL, allow_errors=True).execute()
        nbformat.validate(book)
        counts = [cell.execution_count for cell in book.cells]
        self.assertEqual(counts, list(range(1, len(counts) + 1)))
        for (code, expected), cell in zip(cases, book.cells):
            with self.subTest(code=code):
                seen = [found(output) for output in cell.outputs]
                if expected and expected[0][0] == "late":
                    # A client that waits for idle may have stopped listening for this cell: then it is nowhere else either.
                    self.assertIn(seen, ([], [("stdout", expected[0][1])]))
                else:
                    self.assertEqual(seen, expected)
        everything = "".join(o.text for c in book.cells for o in c.outputs if o.output_type == "stream")
        for _, expected in cases:
            for kind, text in expected:
                if kind == "late":
                    self.assertLessEqual(everything.count(text), 1)

    def test_streams_of_one_cell_keep_their_order(self):
        code = 'for (let k = 0; k < 200; k++) (k % 2 ? console.error : console.log)(k);'
        book = nbformat.v4.new_notebook()
        book.metadata["kernelspec"] = {"name": KERNEL, "display_name": KERNEL, "language": "typescript"}
        book.cells = [nbformat.v4.new_code_cell(code)]
        NotebookClient(book, timeout=120, kernel_name=KERNEL).execute()
        texts = {name: "" for name in ("stdout", "stderr")}
        for output in book.cells[0].outputs:
            texts[output.name] += output.text
        self.assertEqual(texts["stdout"].split(), [str(k) for k in range(0, 200, 2)])
        self.assertEqual(texts["stderr"].split(), [str(k) for k in range(1, 200, 2)])


if __name__ == "__main__":
    unittest.main()
