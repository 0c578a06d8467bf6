"""Paths that several of the worker's modules use; those of the supervisor are in agent.py."""

from __future__ import annotations

from agent import ROOT, RUN_DIR, STATE_DIR, VOLUME_DIR

NGROK_DIR = VOLUME_DIR + ".ngrok/"
NGROK_LOG = ROOT + "/var/log/ngrok.log"
INSTRUCTIONS_FILE = VOLUME_DIR + "SSH_INSTRUCTIONS"
OWN_KEYS_FILE = VOLUME_DIR + "ssh/authorized_keys"
REPLY_FILE = STATE_DIR + "reply.json"
STATUS_FILE = STATE_DIR + "status.json"
WAKE_FIFO = STATE_DIR + "wake"
SESSIONS_FILE = RUN_DIR + "sessions.json"  # root's
ACCESS_FILE = STATE_DIR + "access.json"
GRANTED_FILE = STATE_DIR + "granted.json"
