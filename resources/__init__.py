"""What assets and sensors are handed (the open LAB, dbt), and how jobs are run in this process for the commands."""
