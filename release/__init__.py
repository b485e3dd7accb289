"""What a maintainer runs before a release: does what is committed agree with itself, and how is it mended?"""
