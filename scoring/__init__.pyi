from .case import score_case as score_case
from .rules import RULES_NAMES as RULES_NAMES
from .rules import RulesName as RulesName
from .rules import default_rules as default_rules
from .rules import takes_files_as_they_are as takes_files_as_they_are
from .rules import tasks_of as tasks_of
from .rules import title_of as title_of
from .scores import Scores as Scores
