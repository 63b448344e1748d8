"""Loss terms, distillation terms, and the methods built of them."""
