"""HTTP: the fast lane, the Starlette application, envelopes. Knows nothing of how anything is stored."""
