"""The CNN teacher: any timm model with a spatial feature map, its classifier applied at every grid position."""

from cskd_pipeline.models.teacher.live import LiveTargets
from cskd_pipeline.models.teacher.load import TEACHER_ALIASES, load_teacher
from cskd_pipeline.models.teacher.spec import TeacherSpec
from cskd_pipeline.models.teacher.teacher import Teacher

__all__ = ["TEACHER_ALIASES", "LiveTargets", "Teacher", "TeacherSpec", "load_teacher"]
