package org.example.classifier

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts
import androidx.exifinterface.media.ExifInterface
import java.io.IOException
import java.util.concurrent.Executors

/** Pick a photo, see what it is. */
class MainActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor()
    private lateinit var classifier: Classifier
    private lateinit var answers: TextView

    private val pick = registerForActivityResult(ActivityResultContracts.PickVisualMedia()) { uri ->
        if (uri != null) worker.execute { show(uri) }
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        answers = TextView(this)
        val button = Button(this).apply {
            text = "Photo"
            setOnClickListener {
                val images = ActivityResultContracts.PickVisualMedia.ImageOnly
                pick.launch(PickVisualMediaRequest(images))
            }
        }
        setContentView(
            LinearLayout(this).apply {
                orientation = LinearLayout.VERTICAL
                fitsSystemWindows = true
                addView(button)
                addView(answers)
            },
        )
        worker.execute { classifier = Classifier(this) }
    }

    override fun onDestroy() {
        worker.execute { classifier.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private fun show(uri: Uri) {
        val text = try {
            classifier.classify(upright(uri)).joinToString("\n") {
                "%5.1f %%  %s".format(100 * it.probability, it.label)
            }
        } catch (error: Exception) {  // also what a provider of photos throws
            "This image cannot be read: ${error.message}"
        }
        runOnUiThread { answers.text = text }
    }

    /** Decode with the camera's orientation applied, as `exif = true` in the bundle wants it. */
    private fun upright(uri: Uri): Bitmap {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) {
            val source = ImageDecoder.createSource(contentResolver, uri)
            return ImageDecoder.decodeBitmap(source) { decoder, _, _ ->
                decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
            }
        }
        val degrees = contentResolver.openInputStream(uri)!!.use { ExifInterface(it).rotationDegrees }
        val image = contentResolver.openInputStream(uri)!!.use { BitmapFactory.decodeStream(it) }
            ?: throw IOException("no image")
        val turn = Matrix().apply { postRotate(degrees.toFloat()) }
        return Bitmap.createBitmap(image, 0, 0, image.width, image.height, turn, true)
    }
}
