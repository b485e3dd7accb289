from src.pipeline.process import run

run("reproductions.verify")
