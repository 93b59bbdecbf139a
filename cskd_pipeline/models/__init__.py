"""timm's models as teachers and students, and weights from files."""
