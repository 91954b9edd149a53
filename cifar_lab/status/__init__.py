"""What runs and jobs do now, and what a job decides."""
