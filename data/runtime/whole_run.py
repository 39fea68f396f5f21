"""What pipeline.py does around its stages, as alone.py does around the training of one chapter.

Its flags, several seeds, how a run ends; with which checkpoints it begins, and which of the stages
are asked for. A stage is a pair (function, model), its key the pair (name, model).
"""

from pathlib import Path

from data.files import real
from data.files.checkpoints import digest, given_teacher, tokenizer_of
from data.runtime.command import common_flags, fail, known_failure, out_folder, release
from data.runtime.devices import start
from data.runtime.lessons import smoke
from data.runtime.run import Run
from data.runtime.run_folder import keys_of

# ---- the command line ----


def pipeline_flags(doc: str):
    """The parser of the pipeline's flags."""
    folder = "runs/SIZE-seedSEED, with -data and -smoke after SIZE where those flags are given"
    parser = common_flags(doc, folder)
    parser.add_argument(
        "--student",
        default=None,
        help="checkpoint that the student starts from; name the stages that follow in --stages",
    )
    parser.add_argument(
        "--teacher",
        default=None,
        help="checkpoint of the teacher, or `train` for one that this run trains; default: at size "
        "tiny data/teacher.tiny.pt, at other sizes train",
    )
    parser.add_argument(
        "--stages", default=None, help="only these stages, separated by commas; default: all"
    )
    parser.add_argument(
        "--eval-n",
        type=int,
        default=None,
        help="held-out prompts a domain; default: 128, 8 with --smoke",
    )
    parser.add_argument(
        "--force", action="store_true", help="redo stages that were finished with other settings"
    )
    parser.add_argument(
        "--seeds",
        default=None,
        help="several runs one after the other, such as 1,2,3; each has a folder of its own in "
        "--out",
    )
    return parser


def for_each_seed(args, one_run) -> None:
    """one_run(args), for every seed of --seeds where that is given."""
    if args.seeds is None:
        return one_run(args)
    seeds = args.seeds.split(",")
    if not all(seed.isdecimal() for seed in seeds) or len(set(seeds)) < len(seeds):
        fail(f"--seeds {args.seeds}: needs different numbers separated by commas")
    parent = args.out
    for seed in map(int, seeds):
        args.seed = seed
        args.out = parent and f"{parent}/seed{seed}"
        one_run(args)


class Ending:
    """How a run ends: bad input, a failure or Ctrl-C is one line, which says what is finished.

    with Ending() as ending:
        ...                        # what fails here has left nothing yet
        ending.knows(out, results)
        ...
    """

    def __init__(self):
        self.out = None
        self.stages = []

    def knows(self, out: Path, results: dict) -> None:
        """The run's folder, and the results that grow with every stage."""
        self.out = out
        self.stages = results["stages"]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if isinstance(error, KeyboardInterrupt):
                done = [f"{stage['name']} ({stage['model']})" for stage in self.stages]
                finished = ", ".join(done) or "nothing"
                fail(f"stopped; finished: {finished}. The same command goes on from there.", 130)
            line = known_failure(error) if isinstance(error, Exception) else None
            if line is not None:
                kept = f"; finished stages and their checkpoints are in {self.out}"
                fail(line + kept if self.out else line)
        finally:
            release()


# ---- one run ----


class Whole:
    """One command of the pipeline: its flags, files and checkpoints, before anything is written.

    `starts` has the checkpoints that student and teacher begin with; None is random weights.
    `stands_in`: whether the teacher is the one that comes with the project.
    """

    def __init__(self, args):
        self.args = args
        self.device = start(args)
        self.starts = given_checkpoints(args)
        self.data = real.read_folder(args.data) if args.data else None
        self.tokenizer = tokenizer_of(self.starts["student"] or self.starts["teacher"])
        path = None
        if not args.teacher and not self.data:
            path = given_teacher(args.size, self.tokenizer)
        self.stands_in = path is not None
        if self.stands_in:
            self.starts["teacher"] = path

    def asked(self, stages: list) -> list:
        """The stages of the schedule that --stages names, or by default all that are needed.

        By default a model that begins with a checkpoint is not pretrained. Raises ValueError for a
        name that the schedule does not have, or that is not made from the files of --data.
        """
        args = self.args
        names = list(dict.fromkeys(function.__name__ for function, _ in stages))
        asked = names
        if args.stages is not None:
            asked = [name.strip() for name in args.stages.split(",")]
        unknown = [name for name in asked if name not in names]
        if unknown:
            raise ValueError(f"--stages {unknown[0]}: there is {', '.join(names)}")
        wanted = []
        for function, who in stages:
            name = function.__name__
            pretrained = args.stages is None and name == "pretrain" and self.starts[who]
            if name in asked and not pretrained:
                wanted.append((function, who))
        if not self.data:
            return wanted
        refused = [name for name in asked if of_the_world(name)]
        if args.stages and refused:
            raise ValueError(f"--stages {refused[0]}: is not made from the files of --data")
        return self.made_from_files(wanted)

    def made_from_files(self, wanted: list) -> list:
        """Those of the stages that the files of --data, and --teacher, allow."""
        wanted = [stage for stage in wanted if not of_the_world(stage[0].__name__)]
        if self.starts["teacher"] is not None:
            return wanted
        if self.args.stages is None:
            print("no --teacher: distill is left out")
            wanted = [stage for stage in wanted if stage[0].__name__ != "distill"]
        return [stage for stage in wanted if stage[1] == "student"]

    def run(self, schedules: dict, stages: dict) -> Run:
        """The run, and its folder, held for this process alone; it has no models yet.

        `schedules` of SFT become small here with --smoke; `stages` are taken as they are.
        """
        args = self.args
        if args.smoke:
            schedules = {who: smoke(schedule) for who, schedule in schedules.items()}
        run = Run(
            out=self.folder(),
            size=args.size,
            seed=args.seed,
            device=self.device,
            tokenizer=self.tokenizer,
            schedules=schedules,
            eval_n=args.eval_n or (8 if args.smoke else 128),
            smoke=args.smoke,
            stages=stages,
            data=self.data,
            starts=self.starts,
        )
        files = self.starts | {"data": args.data}
        run.given = {name: path and digest(Path(path)) for name, path in files.items()}
        run.given["compile"] = args.compile
        return run

    def folder(self) -> Path:
        args = self.args
        name = args.size
        if args.data:
            name += "-data"
        if args.smoke:
            name += "-smoke"
        return out_folder(args.out or f"runs/{name}-seed{args.seed}")

    def check_starts(self, todo: list, results: dict) -> None:
        """Raises ValueError where a stage would start from random weights: only pretrain does.

        `todo`: the stages that are still to be run.
        """
        for who, path in self.starts.items():
            takes = {"distill"} if who == "teacher" else set()
            needs = [name for name, model in keys_of(todo) if model == who or name in takes]
            finished = any(stage["model"] == who for stage in results["stages"])
            if needs and needs[0] != "pretrain" and not path and not finished:
                remedy = "" if self.data else ", or name the stages before it in --stages too"
                raise ValueError(
                    f"{needs[0]} has no {who} to start from: give --{who} CHECKPOINT{remedy}"
                )


def given_checkpoints(args) -> dict:
    """{"student": path or None, "teacher": path or None}. Raises ValueError for a missing file."""
    given = {"student": args.student, "teacher": args.teacher}
    if args.teacher == "train":
        given["teacher"] = None
    for who, path in given.items():
        if path and not Path(path).exists():
            raise ValueError(f"--{who} {path}: no such checkpoint")
    return given


def of_the_world(stage: str) -> bool:
    """Whether the tiny world is what this stage learns from, and no real file can be."""
    return stage == "pretrain" or stage.startswith("self_reward")
