import modelcloud
from modelcloud.data_types import number, text

stylize_inputs = {
    "n": number(min=0, max=30, step=1, default=10, description="model input"),
}

stylize_outputs = {
    "result": number(description="model output"),
}


def model1(n):
    if n < 2:
        return 1
    return model1(n - 1) + model1(n - 2)


def model2(n):
    return n


@modelcloud.setup(options={"model": text, "version": text(default="0.1.0")})
def setup(options):
    if options["model"] == "big":
        return model1
    return model2


@modelcloud.command(
    "fib",
    inputs=stylize_inputs,
    outputs=stylize_outputs,
    description="create a algolink model service demo",
)
def classify(model, inputs):
    return {"result": model(inputs["n"])}


if __name__ == "__main__":
    modelcloud.run(port=8080, model_options={"model": "big", "version": "0.0.1"}, runenv="prod")
