"""The papers' tables in small: each row is a training of equal time, and all are compared with the same images."""
