from .case import score_case as score_case
from .rules import RULES_NAMES as RULES_NAMES
from .rules import RulesName as RulesName
from .rules import tasks_of as tasks_of
from .scores import Scores as Scores
