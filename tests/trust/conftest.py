"""Property tests give the same verdict in every run; CLIPSYNTH_RT_PROFILE=search looks further."""

import os

import hypothesis

hypothesis.settings.register_profile(
    "repeat",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "search",
    max_examples=1000,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile(os.environ.get("CLIPSYNTH_RT_PROFILE", "repeat"))
