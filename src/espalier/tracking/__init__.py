"""SHOW: MLflow. Never the truth."""
