from src.pipeline.process import run

run("src.report.stage")
