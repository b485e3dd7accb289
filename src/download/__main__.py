from src.pipeline.process import run

run("src.download.stage")
