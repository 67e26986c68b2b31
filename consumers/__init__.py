"""All that reads events from the log."""

import os

# In its own files dlt marks a type by the first character. The usual ones are those of icon fonts, and
# a customer's text may begin with one; no text has these. dlt reads this when it is first imported.
# https://www.unicode.org/faq/private_use.html#nonchar1
os.environ.setdefault("DLT_JSON_TYPED_PUA_START", "0xfdd0")
