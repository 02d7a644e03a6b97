"""Asks by gRPC as TensorFlow Serving's examples do: numbers like mnist, a photo like resnet.

python tf_serving_example.py --server=localhost:8500 --image=photo.jpg
"""

import json
import pathlib
import threading

import grpc
import numpy
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

flags = tf.compat.v1.app.flags
flags.DEFINE_integer("concurrency", 4, "maximum number of concurrent inference requests")
flags.DEFINE_integer("num_tests", 60, "number of pairs to ask about")
flags.DEFINE_string("server", "localhost:8500", "PredictionService host:port")
flags.DEFINE_string("image", "", "path to an image in JPEG format")
FLAGS = flags.FLAGS


class Tally:
    """Counts answers as they come, and lets only so many questions be open."""

    def __init__(self, concurrency):
        self.answered = self.wrong = 0
        self._changed = threading.Condition()
        self._room = threading.Semaphore(concurrency)

    def throttle(self):
        self._room.acquire()

    def add(self, right):
        with self._changed:
            self.answered += 1
            self.wrong += not right
            self._changed.notify_all()
        self._room.release()

    def wait_for(self, number):
        with self._changed:
            self._changed.wait_for(lambda: self.answered == number)


def callback(label, tally):
    def done(result_future):
        if result_future.exception():
            print(result_future.exception())
            tally.add(False)
            return
        values = numpy.array(result_future.result().outputs["y"].float_val)
        tally.add(len(values) == 2 and numpy.argmax(values) == label)

    return done


def error_rate(stub):
    """Which of two numbers is the larger one? Asked many times at once, through futures."""
    tally = Tally(FLAGS.concurrency)
    pairs = numpy.random.default_rng(1).normal(size=(FLAGS.num_tests, 2)).astype(numpy.float32)
    for pair in pairs:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "half"
        request.model_spec.signature_name = "serving_default"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(pair, shape=[2, 1]))
        tally.throttle()
        result_future = stub.Predict.future(request, 60.0)
        result_future.add_done_callback(callback(numpy.argmax(pair), tally))
    tally.wait_for(FLAGS.num_tests)
    return tally.wrong / tally.answered


def products_like(stub, image):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "search_image"
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(image, shape=[1]))
    result = stub.Predict(request, 60.0)
    ids = [product.decode() for product in result.outputs["product_id"].string_val]
    return list(zip(ids, result.outputs["score"].float_val, strict=True))


def main(_):
    channel = grpc.insecure_channel(FLAGS.server)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    rate = error_rate(stub)
    hits = products_like(stub, pathlib.Path(FLAGS.image).read_bytes())
    print(json.dumps({"error_rate": rate, "hits": hits}))


if __name__ == "__main__":
    tf.compat.v1.app.run()
