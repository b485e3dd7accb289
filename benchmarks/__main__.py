from src.pipeline.process import run

run("benchmarks.bench")
