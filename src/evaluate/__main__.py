from src.pipeline.process import run

run("src.evaluate.stage")
