"""A Flask application as it is: `modelcloud serve server:app` runs it in several processes."""

import math

from flask import Flask, jsonify, request

app = Flask(__name__)


def pi_sqrt(a):
    return math.sqrt(a * math.pi)


@app.route("/")
def hello():
    return "Hello World!"


@app.route("/pisqrt", methods=["GET"])
def pisqrt():
    a = float(request.args.get("a"))
    return jsonify({"result": str(pi_sqrt(a))})
