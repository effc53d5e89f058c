"""The work as a Flask application; uWSGI runs it behind nginx, as the classic guide has it."""

import os
import time

import work
from flask import Flask, jsonify, request

time.sleep(float(os.environ.get("LOAD_S", "0")))
app = Flask(__name__)
model = work.Linear() if os.environ["WORK"] == "linear" else None


@app.post("/pisqrt")
def pisqrt():
    return jsonify({"result": work.pisqrt(float(request.get_json()["a"]))})


@app.post("/linear")
def linear():
    return jsonify({"result": model(request.get_json()["x"])})


@app.post("/batch")
def batch():
    return jsonify({"result": work.batch([float(request.get_json()["a"])])[0]})
