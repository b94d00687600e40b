"""Results of evaluations that never were."""

from likeness.evaluation.results.records import EvaluationResult, MetricRecord, SystemResult, VideoResult, summarize


def record(name, direction="higher", level="video"):
    return MetricRecord(name=name, title=name, unit="1", direction=direction, level=level, averaged="", source="here")


def make_result(scores, metrics, failed=()):
    """`scores`: system -> video -> metric -> number. A video's person is the first letter of its name."""
    videos = tuple(
        VideoResult(
            name=name,
            path=f"{system}/{name}.mp4",
            system=system,
            identity=name[0],
            prompt=None,
            sha256="0",
            num_frames=2,
            fps=8,
            width_px=64,
            height_px=64,
            scores={} if (system, name) in failed else own,
            error="It is damaged." if (system, name) in failed else None,
        )
        for system, by_name in scores.items()
        for name, own in by_name.items()
    )
    systems = tuple(
        SystemResult(
            name=system,
            num_videos=len(by_name),
            num_failed=sum(place[0] == system for place in failed),
            scores={
                metric.name: summarize([video.scores.get(metric.name) for video in videos if video.system == system])
                for metric in metrics
            },
        )
        for system, by_name in scores.items()
    )
    return EvaluationResult(
        metrics={metric.name: metric for metric in metrics},
        left_out={"absent": "Its weights `raft` are not here. Run `likeness models pull raft`."},
        videos=videos,
        systems=systems,
        settings={"engine": "dlib", "threshold": 0.6, "num_references": {}},
    )
