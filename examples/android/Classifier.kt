package org.example.classifier

import android.content.Context
import android.graphics.Bitmap
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.imageclassifier.ImageClassifier
import kotlin.math.exp
import kotlin.math.min
import kotlin.math.roundToInt

data class Answer(val label: String, val probability: Float)

/** A bundle's phone file, fed as the bundle's preprocessing says. Not safe for several threads. */
class Classifier(context: Context) : AutoCloseable {
    // With no limit on the results it gives every class: the softmax needs every logit.
    private val task: ImageClassifier = ImageClassifier.createFromOptions(
        context,
        ImageClassifier.ImageClassifierOptions.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetPath(MODEL).build())
            .setRunningMode(RunningMode.IMAGE)
            .build(),
    )

    /** Classify an upright image; the most probable class comes first. */
    fun classify(image: Bitmap, topk: Int = 5): List<Answer> {
        val cut = preprocess(image)
        val logits = task.classify(BitmapImageBuilder(cut).build())
            .classificationResult().classifications().first().categories()
        val highest = logits.maxOf { it.score() }
        val total = logits.sumOf { exp((it.score() - highest).toDouble()) }
        return logits.sortedByDescending { it.score() }.take(topk).map {
            val probability = exp((it.score() - highest).toDouble()) / total
            Answer(it.categoryName(), probability.toFloat())
        }
    }

    override fun close() = task.close()

    companion object {
        // From `edgecls inspect BUNDLE`: resize = 256 (the shorter side), then the centre, crop = 224.
        private const val MODEL = "model.int8.phone.tflite"
        private const val RESIZE = 256
        private const val CROP = 224

        /**
         * Return what the model saw in training: the centre, at the model's size. MediaPipe has
         * nothing left to scale, and so cannot stretch the image.
         */
        fun preprocess(image: Bitmap): Bitmap {
            val side = (min(image.width, image.height) * CROP / RESIZE.toFloat()).roundToInt()
            val left = (image.width - side) / 2
            val top = (image.height - side) / 2
            var cut = Bitmap.createBitmap(image, left, top, side, side)
            // Android's filter looks at four pixels only: by more than a half it would skip some.
            while (cut.width >= 2 * CROP) {
                cut = Bitmap.createScaledBitmap(cut, cut.width / 2, cut.height / 2, true)
            }
            val scaled = Bitmap.createScaledBitmap(cut, CROP, CROP, true)
            return scaled.copy(Bitmap.Config.ARGB_8888, false)
        }
    }
}
