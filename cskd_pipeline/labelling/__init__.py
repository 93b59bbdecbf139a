"""Stage 1: the teacher over augmented crops, once, into a store that any number of students read."""
