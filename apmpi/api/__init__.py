"""The API of programs: frames, the processing module and media devices."""
