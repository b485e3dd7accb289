from src.pipeline.process import run

run("src.train.stage")
