from src.pipeline.process import run

run("src.predict.command")
