from src.pipeline.process import run

run("src.reader.export.stage")
