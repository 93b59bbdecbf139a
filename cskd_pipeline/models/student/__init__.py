"""Students: any timm model, with the heads that distillation needs."""

from cskd_pipeline.models.student.create import can_be_distilled, create_student, resolve_name
from cskd_pipeline.models.student.heads import Student, StudentSpec, TokenStudent, parameter_count, plain_state_dict
from cskd_pipeline.models.student.probe import add_adapter, fixed_size, other_size, require_answers

__all__ = [
    "Student",
    "StudentSpec",
    "TokenStudent",
    "add_adapter",
    "can_be_distilled",
    "create_student",
    "fixed_size",
    "other_size",
    "parameter_count",
    "plain_state_dict",
    "require_answers",
    "resolve_name",
]
