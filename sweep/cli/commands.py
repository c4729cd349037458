"""The stages of the command, in one table: what each is called, what `--help` says of it, and what it runs."""

from sweep.cli.command_line import StageCommand
from sweep.cli.run_jobs import run_logs, run_stop, run_submit
from sweep.cli.run_stages import (
    run_deliver,
    run_evaluate,
    run_export,
    run_extend,
    run_final,
    run_resume,
    run_search,
    run_sensitivity,
)
from sweep.cli.run_studies import run_plan, run_study
from sweep.cli.run_views import run_doctor, run_replay, run_report, run_status, run_ui

STAGES: dict[str, StageCommand] = {
    "plan": StageCommand(
        run_plan,
        "checks a configuration before anything is spent",
        "sweep plan [NAME] [KEY=VALUE ...]",
        (0, 1),
        "Checks space, data and storage, trains two iterations of the cheapest and the dearest configuration, and "
        "prints trials x epochs x cost; of a whole study with study=quick, say. Writes nothing.\n"
        "  study.cpu_hour_price=0.05 search.budget.gpu_hour_price=2   what it costs in money",
    ),
    "doctor": StageCommand(
        run_doctor,
        "checks this machine, or the cluster, for what a sweep would stumble over",
        "sweep doctor [--wide|--json] [KEY=VALUE ...]",
        (0, 0),
        "Packages, CPUs, GPUs, data, disk, MLflow server, and Ray as a sweep starts or joins it; of a cluster a table "
        "with a row for each node; 1 if a check failed.\n"
        "  data=cifar10 runtime.data_dir=DIR tracking.uri=http://HOST:5000 cluster=address cluster.address=auto",
    ),
    "search": StageCommand(
        run_search,
        "runs a sweep: Optuna proposes, Ray Tune runs trials, MLflow records",
        "sweep search NAME [KEY=VALUE ...]",
        (1, 1),
        "Writes best.yaml, trials.csv and curves.csv to runs/NAME.\n"
        "  space=resnet|continuous|smoke      what is searched\n"
        "  space.fix.model.scheme=rk4         a parameter fixed\n"
        "  space.range.optim.lr=[1e-3,1e-1]   a parameter narrowed\n"
        "  search.trials=50 search.sampler=random search.scheduler=asha\n"
        "  data=cifar10 data.per_class=100 runtime.data_dir=DIR",
    ),
    "resume": StageCommand(
        run_resume,
        "goes on with what was cut short",
        "sweep resume NAME [KEY=VALUE ...]",
        (1, 1),
        "After Ctrl-C, a killed driver, a reboot or a full disk: trials go on from their checkpoints, and nothing "
        "is lost or run twice. NAME is a sweep whose search or final training was cut short, or a study; an evaluation "
        "goes on by `sweep evaluate`.\n"
        "  search.accept_changes=true         although space, code or data have changed since\n"
        "  search.budget.hours=12             a larger budget",
    ),
    "extend": StageCommand(
        run_extend,
        "adds trials to a finished search",
        "sweep extend NAME search.more=N [--again] [KEY=VALUE ...]",
        (1, 1),
        "The sampler goes on with what it knows, schedulers with the rungs that are filled. A study is extended as a "
        "whole, all its searches alike.\n"
        "  --again    although final training is done: puts it away, with what the test set said of it",
    ),
    "deliver": StageCommand(
        run_deliver,
        "tells MLflow what it was not told, or refused",
        "sweep deliver NAME [KEY=VALUE ...]",
        (1, 1),
        "Delivers the rest of outbox.jsonl and tries again what was set aside; 1 if something is left.\n"
        "  tracking.uri=http://HOST:5000      another store, which is told everything",
    ),
    "status": StageCommand(
        run_status,
        "table of sweeps or of one sweep's trials",
        "sweep status [NAME] [--trial N] [--wide|--csv|--json|--verify] [runtime.runs_dir=DIR]",
        (0, 1),
        "Outcomes, objectives, cost and the parameters that vary, also while the sweep runs: whole columns, as many "
        "as the window has room for.\n"
        "  --wide     all columns, however wide\n"
        "  --csv, --json   the same for other programs, every parameter in full\n"
        "  --trial N  all about one trial, with the traceback of one that failed and its worker's last lines\n"
        "  --verify   whether trials.csv, Ray, the Optuna study and MLflow agree on every trial; 1 if they do not",
    ),
    "final": StageCommand(
        run_final,
        "confirms the best trials over seeds, retrains the crowned one",
        "sweep final NAME|path/to/best.yaml [--again] [KEY=VALUE ...]",
        (1, 1),
        "Retrains the top configurations on train over seeds, crowns the best mean, retrains it on train+val over "
        "fresh seeds, registers the first of these as MLflow model NAME, alias champion. A best.yaml is retrained in "
        "a new run directory.\n"
        "  final.top=3 final.confirm_seeds=3 final.seeds=10\n"
        "  --again    puts the former final training away, with what the test set said of it, and trains again",
    ),
    "sensitivity": StageCommand(
        run_sensitivity,
        "trains around the selected configuration: learning rate x weight decay, steps, batch size",
        "sweep sensitivity NAME [KEY=VALUE ...]",
        (1, 1),
        "Trains the crowned configuration of a search, or before there is one its best, and its neighbours as ordinary "
        "trials, judged on val; `sweep report` has the heat map. Goes on when it is run again, and can be asked for "
        "more. Of a study NAME is one of its sweeps, STUDY/FAMILY-dDRAW.\n"
        "  sensitivity.lr_factors=[0.25,1,4] sensitivity.weight_decay_factors=[0.25,1,4]   factors, each with each\n"
        "  sensitivity.grid=false             one at a time\n"
        "  sensitivity.step_factors=[0.5,2] sensitivity.batch_factors=[0.5,2] sensitivity.seeds=3",
    ),
    "evaluate": StageCommand(
        run_evaluate,
        "tests the final networks: clean, other schemes and steps, corrupted and attacked images",
        "sweep evaluate NAME [KEY=VALUE ...]",
        (1, 1),
        "Measures each final network once under each condition, and writes rows.csv. What was cut short goes on; "
        "conditions can be added later. NAME may be a study: then all its sweeps.\n"
        "  evaluate.conditions=[clean,manifestation,manifestation_reestimated,corruption,attack,diagnostics,"
        "compression]\n"
        "  evaluate.schemes=[euler,rk4] evaluate.step_factors=[0.5,1,2,4]\n"
        "  evaluate.corruptions=[fog,snow] evaluate.severities=[1,3,5] evaluate.corruption_images=1000\n"
        "  evaluate.attack.images=1000 evaluate.attack.linf_255=[0.5,2] evaluate.transfer=[OTHER_SWEEP]",
    ),
    "export": StageCommand(
        run_export,
        "writes the champion as safetensors, ONNX or torch.export, checked after writing",
        "sweep export NAME [format=safetensors|onnx|pt2] [KEY=VALUE ...]",
        (1, 1),
        "Writes to runs/NAME/export, and compares the file with the network on the test images.\n"
        "  format=safetensors   weights and a JSON file, which odenet.load_classifier reads without running code\n"
        "  format=onnx          a graph for ONNX Runtime; of fixed steps only\n"
        "  format=pt2           a graph of torch.export, which needs no odenet; of fixed steps only",
    ),
    "report": StageCommand(
        run_report,
        "one self-contained HTML report",
        "sweep report NAME [NAME ...] [--figures DIR]",
        (1, 1000),
        "A study's name stands for all its sweeps. Opens offline.\n"
        "  --figures DIR   also writes the figures of a paper as PDF and SVG, and the tables as CSV and LaTeX",
    ),
    "study": StageCommand(
        run_study,
        "search, final, evaluate and report over families, sizes and draws on equal terms",
        "sweep study NAME [study=quick|cifar10_lowdata|cifar10_full|stl10|folder] [KEY=VALUE ...]",
        (1, 1),
        "Freezes its protocol before the first trial (protocol.yaml); what departs from it later is refused.\n"
        "  study.families=[resnet,continuous] study.sizes=[50,100] study.draws=[0,1,2,3,4] search.trials=12\n"
        "  study.arm=equal_compute study.median_epochs=30   as much computation for every training",
    ),
    "replay": StageCommand(
        run_replay,
        "a finished search under another sampler or scheduler, on its recorded curves",
        "sweep replay NAME [KEY=VALUE ...]",
        (1, 1),
        "Trains nothing, writes nothing. Trials whose whole curve is recorded are searched again in simulated time.\n"
        "  search.sampler=tpe search.scheduler=asha search.reduction=4\n"
        "  replay.workers=8 replay.repeats=10",
    ),
    "submit": StageCommand(
        run_submit,
        "runs a stage on a cluster, by its job server, and leaves",
        "sweep submit STAGE NAME cluster.job_server=http://HEAD:8265 [KEY=VALUE ...]",
        (2, 1001),
        "Sends this code and the command to the cluster's head, where it runs as a Ray job, and waits until its trials "
        "begin or it is refused. `status`, `logs`, `stop` and `resume` with the same cluster.job_server follow it.\n"
        "  runtime.runs_dir=/shared/runs      absolute: on the cluster, where all nodes mount it\n"
        "  cluster.unauthenticated=true       also to a remote job server that takes anybody",
    ),
    "logs": StageCommand(
        run_logs,
        "what a submitted command has printed",
        "sweep logs NAME cluster.job_server=http://HEAD:8265 [--follow]",
        (1, 1),
        "The last command submitted for NAME, or the one that runs.\n"
        "  --follow   until it ends; Ctrl-C leaves it alone",
    ),
    "stop": StageCommand(
        run_stop,
        "stops a submitted command as Ctrl-C would",
        "sweep stop NAME cluster.job_server=http://HEAD:8265",
        (1, 1),
        "Running trials finish their epoch and keep a checkpoint, and MLflow is told; `sweep resume NAME` with the "
        "same cluster.job_server goes on.",
    ),
    "ui": StageCommand(
        run_ui,
        "MLflow's page and Optuna's dashboard on loopback",
        "sweep ui NAME [tracking.port=5000]",
        (1, 1),
        "Serves until Ctrl-C.",
    ),
}
