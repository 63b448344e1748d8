"""Networks and files of labels -> counts -> scores, tables and masks."""
