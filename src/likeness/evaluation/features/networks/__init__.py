"""Networks of published metrics, each built for one published weights file and loaded strictly."""
