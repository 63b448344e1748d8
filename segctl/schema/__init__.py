"""What a run is: closed, frozen pydantic blocks, read from YAML."""
