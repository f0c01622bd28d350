"""Which options each recipe takes, by the name of its script; those of training are in `audiomcq.options.parse_stage`."""

from audiomcq.arguments.construction import AuditArguments, BuildArguments, CheckSourceArguments, ConvertArguments
from audiomcq.arguments.contribution import LabelingRule, ProbeArguments, ReportArguments, SplitArguments
from audiomcq.arguments.evaluation import (
    AnswerArguments,
    ForgettingArguments,
    GradeChainsArguments,
    ImportArguments,
    RescoreArguments,
    ScoreArguments,
    SelectArguments,
)
from audiomcq.arguments.profiles import CompareProfilesArguments, ConsistencyArguments, ParaphraseArguments
from audiomcq.arguments.publishing import (
    AppArguments,
    ExportArguments,
    PublishArguments,
    PublishModelArguments,
    SpaceArguments,
)
from audiomcq.arguments.study import StudyArguments

OPTIONS: dict[str, tuple[type, ...]] = {
    "probe": (ProbeArguments,),
    "split": (SplitArguments, LabelingRule),
    "report": (ReportArguments, LabelingRule),
    "compare_profiles": (CompareProfilesArguments,),
    "paraphrase": (ParaphraseArguments,),
    "consistency": (ConsistencyArguments,),
    "answer": (AnswerArguments,),
    "score": (ScoreArguments,),
    "import_answers": (ImportArguments,),
    "select_checkpoint": (SelectArguments,),
    "forgetting": (ForgettingArguments,),
    "rescore": (RescoreArguments,),
    "grade_chains": (GradeChainsArguments,),
    "audit_overlap": (AuditArguments,),
    "build": (BuildArguments,),
    "convert": (ConvertArguments,),
    "check": (CheckSourceArguments,),
    "dataset": (PublishArguments,),
    "model": (PublishModelArguments,),
    "export": (ExportArguments,),
    "space": (SpaceArguments,),
    "app": (AppArguments,),
    "study": (StudyArguments,),
}
