"""Networks or PNGs of class ids -> counts -> scores, tables and masks."""
