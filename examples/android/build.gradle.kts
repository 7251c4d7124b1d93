// app/build.gradle.kts: what the classifier needs beside an empty activity's lines.
plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "org.example.classifier"
    compileSdk = 35

    defaultConfig {
        applicationId = "org.example.classifier"
        minSdk = 24
        targetSdk = 35
    }

    // The model is mapped from the package, which it cannot be where it is packed.
    androidResources { noCompress += "tflite" }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
}

dependencies {
    implementation("com.google.mediapipe:tasks-vision:0.10.26")
    implementation("androidx.activity:activity-ktx:1.10.1")
    implementation("androidx.exifinterface:exifinterface:1.4.1")
}
