"""papermill's parameters in TypeScript, and an engine that runs any TypeScript notebook on tunebook."""

import datetime
import json
import math
import re

from papermill.engines import NBClientEngine
from papermill.models import Parameter
from papermill.translators import Translator, papermill_translators

__all__ = ["TypeScriptTranslator", "TunebookEngine"]

MAX_SAFE_INTEGER = 2**53 - 1
IDENTIFIER = re.compile(r"[^\W\d][\w$]*|[$_][\w$]*")
DECLARATION = re.compile(
    r"^\s*(?:export\s+)?(?:let|var|const)\s+(?P<name>[\w$]+)\s*(?::\s*(?P<type>[^=]+?))?\s*=(?![=>])\s*(?P<rest>.*)$"
)


class TypeScriptTranslator(Translator):
    """Writes parameters as TypeScript declarations, and reads those of a `parameters` cell."""

    @classmethod
    def translate_none(cls, val):
        return "null"

    @classmethod
    def translate_escaped_str(cls, str_val):
        # JSON's escapes are JavaScript's; anything that is no text yet (a path, say) becomes some.
        return json.dumps(str(str_val), ensure_ascii=False)

    @classmethod
    def translate_int(cls, val):
        return f"{val}n" if abs(val) > MAX_SAFE_INTEGER else str(val)

    @classmethod
    def translate_float(cls, val):
        if math.isnan(val):
            return "NaN"
        if math.isinf(val):
            return "Infinity" if val > 0 else "-Infinity"
        return repr(val)

    @classmethod
    def translate_dict(cls, val):
        # `"__proto__": x` would set the prototype; a computed key makes a property.
        keys = {key: cls.translate_escaped_str(key) for key in val}
        pairs = ((f"[{text}]" if str(key) == "__proto__" else text, val[key]) for key, text in keys.items())
        return "{ " + ", ".join(f"{key}: {cls.translate(value)}" for key, value in pairs) + " }" if val else "{}"

    @classmethod
    def translate_list(cls, val):
        return "[" + ", ".join(cls.translate(each) for each in val) + "]"

    @classmethod
    def translate(cls, val):
        # A date without a time is UTC in JavaScript, as in YAML.
        if isinstance(val, datetime.date):
            return f"new Date({cls.translate_escaped_str(val.isoformat())})"
        if isinstance(val, tuple):
            return cls.translate_list(val)
        return super().translate(val)

    @classmethod
    def comment(cls, cmt_str):
        return "\n".join(f"// {line}".rstrip() for line in cmt_str.split("\n"))

    @classmethod
    def assign(cls, name, str_val):
        if not IDENTIFIER.fullmatch(name):
            raise ValueError(f"-p {name}: a parameter's name must be an identifier of TypeScript.")
        return f"let {name} = {str_val};"

    @classmethod
    def inspect(cls, parameters_cell):
        found = []
        for line in str(parameters_cell["source"]).split("\n"):
            match = DECLARATION.match(line)
            if match is None:
                continue
            value, comment = split_comment(match["rest"])
            kind = (match["type"] or "").strip()
            found.append(Parameter(name=match["name"], inferred_type_name=kind or "None", default=value, help=comment))
        return found


def split_comment(text):
    """The value and the comment of the rest of a declaration's line; `//` inside a string is no comment."""
    quote = None
    at = 0
    while at < len(text):
        letter = text[at]
        if quote is not None:
            if letter == "\\":
                at += 1
            elif letter == quote:
                quote = None
        elif letter in "\"'`":
            quote = letter
        elif text.startswith("//", at):
            break
        at += 1
    return text[:at].strip().rstrip(";").rstrip(), text[at:].lstrip("/").strip()


class TunebookEngine(NBClientEngine):
    """`papermill --engine tunebook`: any notebook in TypeScript or JavaScript, on the kernel `tunebook`."""

    KERNEL = "tunebook"

    @classmethod
    def nb_kernel_name(cls, nb, name=None):
        return name or cls.KERNEL

    @classmethod
    def nb_language(cls, nb, language=None):
        return language or "typescript"

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
        return super().execute_managed_notebook(nb_man, kernel_name or cls.KERNEL, **kwargs)


for _language in ("typescript", "javascript"):
    try:
        papermill_translators.find_translator(_language, _language)
    except Exception:  # none yet: papermill raises its own error
        papermill_translators.register(_language, TypeScriptTranslator)
