"""Runs COUNT printing cells through nbclient and counts those whose output is not what it must be: RESULT COUNT LANGUAGE"""

import json
import sys

import nbformat
from nbclient import NotebookClient

result, count, language = sys.argv[1], int(sys.argv[2]), sys.argv[3]
book = nbformat.v4.new_notebook()
call = "print({})" if language == "python" else "console.log({});"
book.cells = [nbformat.v4.new_code_cell(call.format(i)) for i in range(count)]
NotebookClient(book, timeout=60, kernel_name="bench", allow_errors=True).execute()
lost = sum("".join(o.get("text", "") for o in cell.outputs).strip() != str(i) for i, cell in enumerate(book.cells))
with open(result, "w") as file:
    json.dump({"lost": lost}, file)
