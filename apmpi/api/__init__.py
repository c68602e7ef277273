"""What a program imports: frames, the processing module and media devices."""
